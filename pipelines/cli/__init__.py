"""The command line `mantis`: `main` builds it from the modules in `commands`.

`console` prints tables, JSON and errors. `arguments` holds the options that commands share, and their completion.
"""
