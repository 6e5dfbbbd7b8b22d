"""The papers' own evaluations, a module each; `PROTOCOL` is what `faceattr evaluate --protocol=MODULE` runs."""
