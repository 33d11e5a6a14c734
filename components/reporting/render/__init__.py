"""Render a report as HTML, Markdown and JSON."""
