//! Harness for scenarios in network namespaces.
