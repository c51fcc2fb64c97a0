"""One module for each command of `ssmfin`; heavy imports stay inside the functions."""
