# The commit that results and --version name; "unknown" outside a git checkout.
find_package(Git QUIET)
set(KVCAST_COMMIT "unknown")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${PROJECT_SOURCE_DIR} describe --always --dirty --abbrev=12
                  OUTPUT_VARIABLE git_output OUTPUT_STRIP_TRAILING_WHITESPACE
                  ERROR_QUIET RESULT_VARIABLE git_result)
  if(git_result EQUAL 0)
    set(KVCAST_COMMIT ${git_output})
  endif()
endif()
