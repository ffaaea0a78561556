# Source this in a shell (`. tools/env.sh`) to use .venv/bin/brownie, anvil, forge and the compiler by name.
# HOME is left alone, so that your own ~/.brownie accounts and networks are used; tools/brownie keeps its own in build/.
INTERLOCK_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
export SOLCX_BINARY_PATH="$INTERLOCK_ROOT/tools/solc"
export PATH="$INTERLOCK_ROOT/.venv/bin:$INTERLOCK_ROOT/node_modules/.bin:$PATH"
