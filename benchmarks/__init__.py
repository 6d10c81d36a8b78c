"""Papyros beside its peers, measured in one run: ``python -m benchmarks --help``.

::

    __main__ ── for each round, for each system ──▶ session (a process of its own)
       │                                              systems, peers: open, call, close
       │                                              rows: what is measured
       ▼
    ratios ──▶ report: a table and a plot; or recorded: the short form's reference

Every session is a fresh process, so that no system sees what another one left
behind; sessions of all systems take turns, so that whatever else the machine does
meets all of them. Ratios are taken within a round and the median of them is
shown: they hold where absolute figures do not.
"""
