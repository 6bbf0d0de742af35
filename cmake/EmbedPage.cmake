# The page's files become one source file, as raw string literals: nothing is read
# at run time, and no build step but this one. Runs again when a file changes.
function(kvcast_embed_page output)
  set(directory ${CMAKE_CURRENT_SOURCE_DIR}/page)
  set(text "// Made by cmake/EmbedPage.cmake from src/server/page/.\n#include \"server/page.h\"\n\nnamespace kvcast {\nnamespace {\n\nconstexpr PageFile kFiles[] = {\n")
  set(entries "/|index.html|text/html; charset=utf-8" "/style.css|style.css|text/css; charset=utf-8")
  foreach(script answer api app chat differences dom race settings)
    list(APPEND entries "/${script}.js|${script}.js|text/javascript; charset=utf-8")
  endforeach()
  foreach(entry IN LISTS entries)
    string(REPLACE "|" ";" parts "${entry}")
    # The content type has a ';' of its own.
    list(POP_FRONT parts path file)
    list(JOIN parts ";" type)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${directory}/${file})
    file(READ ${directory}/${file} body)
    string(APPEND text "{\"${path}\", \"${type}\", R\"kvcast_page(${body})kvcast_page\"},\n")
  endforeach()
  string(APPEND text "};\n\n}  // namespace\n\nstd::span<const PageFile> page_files() { return kFiles; }\n\n}  // namespace kvcast\n")
  file(WRITE ${output}.new "${text}")
  configure_file(${output}.new ${output} COPYONLY)  # keeps the time stamp if nothing changed
endfunction()
