"""Tables and figures of many runs: seeds, open readings, the trade-off. Nothing here trains."""
