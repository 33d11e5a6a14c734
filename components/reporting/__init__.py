"""Write a run's report as one HTML page, as Markdown and as JSON.

`pipelines` imports this package. It imports `mantis` alone.
"""
