"""Laws at length: `./run soak NAME`. The test suite holds a small sample of each, by the same functions."""
