"""Face embedders: an aligned face -> a vector of unit length, by whose cosine two faces are compared."""
