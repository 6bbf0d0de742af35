// What a program says when a file that it has mapped becomes shorter under it.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcast {

/// From now on a read of a mapped file's bytes that are no longer there (somebody cut the file, or
/// the medium failed: SIGBUS) ends the program with one line on standard error that names the file,
/// "PROGRAM: FILE: ...", and exit status 1, instead of a crash. For programs, at their start; a
/// library leaves signals to its program. `program` has to outlive the process.
void report_shrunken_files(const char* program);

/// MappedFile's: the handler finds the file by the address. Any thread. Beyond 256 files at a time,
/// and of paths beyond 511 bytes, the line names less.
void remember_mapping(std::span<const std::byte> bytes, std::string_view path);
void forget_mapping(std::span<const std::byte> bytes);

}  // namespace kvcast
