"""Reads the images that rows name: files beside the rows, and members of zips."""
