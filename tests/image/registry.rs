//! A real registry on loopback, and one that lies.
