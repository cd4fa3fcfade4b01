//! Black-box tests: the binary and the library as their users meet them. One module a theme.

mod archive;
mod bench;
mod broken_input;
mod demo;
mod encodings;
mod exchange;
mod grids;
mod inputs;
mod kernels;
mod marks;
mod node;
mod node_services;
mod orientations;
mod packages;
mod pages;
mod reading;
mod real_data;
mod reports;
mod research;
mod result_volumes;
mod rooms;
mod segmentations;
mod selection;
mod support;
mod verdicts;
