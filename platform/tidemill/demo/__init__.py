"""`tidemill demo`: the whole loop as one story on real flights."""
