#include "models_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "base/macros.h"
#include "base/nearest_word.h"
#include "model/bundle.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

/// The model that is used when none is named.
constexpr const char* kDefaultBundle = "kvcast-65m";

/// The parts of a split GGUF file but the first, which stands for all.
bool is_later_part(const std::string& name) {
  const size_t of = name.rfind("-of-");
  return of != std::string::npos && of >= 6 && !name.substr(0, of).ends_with("-00001");
}

bool is_model_directory(const fs::path& directory) {
  std::error_code ignored;
  return is_bundle(directory) || fs::exists(directory / "config.json", ignored);
}

/// The name that a folder's entry is called by; empty if it is no model.
std::string model_name(const fs::path& entry) {
  std::error_code ignored;
  if (fs::is_directory(entry, ignored)) {
    return is_model_directory(entry) ? entry.filename().string() : "";
  }
  const bool is_gguf = entry.extension() == ".gguf" && fs::is_regular_file(entry, ignored);
  return is_gguf && !is_later_part(entry.stem().string()) ? entry.stem().string() : "";
}

std::map<std::string, fs::path> models_by_name() {
  std::map<std::string, fs::path> models;
  for (const fs::path& folder : models_folders()) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = model_name(entry.path());
      if (!name.empty()) models.emplace(name, entry.path());
    }
  }
  return models;
}

/// The path, if a model can be there.
Result<fs::path> checked(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored) || is_model_directory(path)) return path;
  std::string message = fmt::format(
      "{}: neither config.json nor kvcast.json is in it: no model directory and no bundle",
      path.string());
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    if (model_name(entry.path()).empty()) continue;
    message += fmt::format("; {} is a model", entry.path().string());
    break;
  }
  return fail(std::move(message));
}

Error no_such_model(const std::string& path_or_name, const std::map<std::string, fs::path>& known) {
  std::vector<std::string> names;
  for (const auto& [name, path] : known) names.push_back(name);
  const std::string nearest = nearest_word(path_or_name, names);
  return {
      fmt::format("{}: no such file or directory, and no model of that name{} (kvcast list "
                  "shows their names)",
                  path_or_name, nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest))};
}

}  // namespace

std::vector<fs::path> models_folders() {
  std::vector<fs::path> folders = chosen_model_folders();
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path beside = program.parent_path();
  folders.push_back((beside / "../share/kvcast/models").lexically_normal());
  if (fs::exists(beside / "CMakeCache.txt", ignored)) {  // where it was built: those of the sources
    folders.push_back((beside / KVCAST_MODELS_FROM_BUILD).lexically_normal());
    folders.push_back(folders.back() / "hub");  // what `make models` fetches
  }
  return folders;
}

std::vector<ListedModel> list_models() {
  std::vector<ListedModel> listed;
  for (auto& [name, path] : models_by_name()) listed.push_back({name, path});
  return listed;
}

bool is_model(const std::string& path_or_name) {
  std::error_code ignored;
  return fs::exists(path_or_name, ignored) || models_by_name().contains(path_or_name);
}

Result<fs::path> find_model(const std::string& path_or_name) {
  std::error_code ignored;
  if (!path_or_name.empty() && fs::exists(path_or_name, ignored)) return checked(path_or_name);
  const auto models = models_by_name();
  const auto found = models.find(path_or_name.empty() ? kDefaultBundle : path_or_name);
  if (found != models.end()) return found->second;
  if (!path_or_name.empty()) return tl::unexpected(no_such_model(path_or_name, models));
  std::vector<std::string> folders;
  for (const fs::path& folder : models_folders()) folders.push_back(folder.string());
  return fail(fmt::format("no MODEL given, and the bundle shipped with kvcast, {}, is not in {}",
                          kDefaultBundle, fmt::join(folders, ", ")));
}

}  // namespace kvcast
