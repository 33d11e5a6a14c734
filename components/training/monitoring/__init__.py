"""What watches a training without deciding its steps."""
