"""Expected files and the programs that write them."""
