"""What a hostile stranger sends: makers of requests here; the suite that sends them."""
