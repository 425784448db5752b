"""One module for each noun of the command line; each has an `app` and imports the stubs that it needs."""
