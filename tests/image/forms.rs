//! Every form in which images travel, read and written, beside the tools that others use.
