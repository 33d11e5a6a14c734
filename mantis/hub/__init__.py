"""The Hugging Face hub: file lists and resumable downloads."""
