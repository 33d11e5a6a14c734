"""List files of the Hugging Face hub, download them, and read their ranges."""
