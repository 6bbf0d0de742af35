#include "models_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "base/macros.h"
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

/// The name that a folder's entry is called by; empty if it is no model.
std::string model_name(const fs::path& entry) {
  std::error_code ignored;
  if (fs::is_directory(entry, ignored)) {
    const bool holds_one = is_bundle(entry) || fs::exists(entry / "config.json", ignored);
    return holds_one ? entry.filename().string() : "";
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

}  // namespace

std::vector<fs::path> models_folders() {
  std::vector<fs::path> folders = chosen_model_folders();
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  folders.push_back((program.parent_path() / "../share/kvcast/models").lexically_normal());
  folders.emplace_back(KVCAST_MODELS_DIR);
  folders.emplace_back(fs::path(KVCAST_MODELS_DIR) / "hub");  // what `make models` fetches
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
  if (!path_or_name.empty() && fs::exists(path_or_name, ignored)) return path_or_name;
  const auto models = models_by_name();
  const auto found = models.find(path_or_name.empty() ? kDefaultBundle : path_or_name);
  if (found != models.end()) return found->second;
  if (!path_or_name.empty()) return path_or_name;
  std::vector<std::string> folders;
  for (const fs::path& folder : models_folders()) folders.push_back(folder.string());
  return fail(fmt::format("no MODEL given, and the bundle shipped with kvcast, {}, is not in {}",
                          kDefaultBundle, fmt::join(folders, ", ")));
}

}  // namespace kvcast
