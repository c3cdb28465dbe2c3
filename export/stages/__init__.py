"""What an export does, one stage a module: trace, surgery, convert, gate, write."""
