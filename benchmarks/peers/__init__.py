"""Where students stand among the parsers and taggers that people can install."""
