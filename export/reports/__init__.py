"""Programs that measure graphs and change none."""
