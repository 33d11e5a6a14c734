"""Raw input in its published forms: rows and image bytes, not yet checked."""
