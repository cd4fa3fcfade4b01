//! Black-box tests: the binary and the library as their users meet them. One module a theme.

mod broken_input;
mod demo;
mod grids;
mod encodings;
mod packages;
mod reading;
mod real_data;
mod rooms;
mod selection;
mod support;
