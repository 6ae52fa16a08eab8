"""The benchmark runner behind scripts/tlsdyno. One noun a module; data flows one way, from scenario to table."""
