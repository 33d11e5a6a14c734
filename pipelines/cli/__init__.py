"""The command line `mantis`: `main` builds it, and each noun has a module.

`console` prints tables, JSON and errors. `arguments` holds the options that commands share, and their completion.
"""
