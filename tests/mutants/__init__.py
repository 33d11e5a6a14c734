"""Mutation testing: parts of the code, their fast tests, and the score that these tests reach."""
