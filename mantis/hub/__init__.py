"""List files of the Hugging Face hub, and download them with resumption."""
