//! Hostile and honest layers, unpacked.
