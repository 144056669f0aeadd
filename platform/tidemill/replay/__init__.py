"""Living through history in simulated time: `tidemill replay`."""
