"""Programs that ranks and subprocesses run, and code that tests share."""
