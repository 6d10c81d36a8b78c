"""Whatever can be killed, stopped, cut or filled is, row by row of the table in docs/faults.md."""
