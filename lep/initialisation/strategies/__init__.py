"""The initialisation strategies, one a file: a function of `Change` decorated with `lep.initialisation.strategy.strategy`."""
