"""The top floor: a YAML study to plan, tasks, store, report, and the `ssmfin` command."""
