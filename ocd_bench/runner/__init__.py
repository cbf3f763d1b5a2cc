"""The runner: plan cells, train the shared base, fit and measure each method, write the run folder."""
