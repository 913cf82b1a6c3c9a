"""The SQL that carries correctness: inbox, journal, ledger, limiter, runners."""
