//! ptx-emulator
