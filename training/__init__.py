"""Where the default weights come from: one module a step, run from the checkout by ``python -m training.STEP``."""
