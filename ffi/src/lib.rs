//! C ABI of Adit: holds only its crate until the ABI is written, so that the dependency direction is checked from the start.
