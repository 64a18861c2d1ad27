# Read by bash when it starts, in a sandbox that is made ahead: waits for its job, and leaves nothing of itself.
unset BASH_ENV FUMEHOOD_PRELOAD
printf '\n' >&"$FUMEHOOD_BOOT"
IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_COUNT || exit 1
set --
while [ "$FUMEHOOD_COUNT" -gt 0 ] && IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_WORD; do
    set -- "$@" "$FUMEHOOD_WORD"
    FUMEHOOD_COUNT=$((FUMEHOOD_COUNT - 1))
done
while IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_WORD; do
    export "${FUMEHOOD_WORD?}"
done
exec {FUMEHOOD_BOOT}<&-
unset FUMEHOOD_BOOT FUMEHOOD_COUNT FUMEHOOD_WORD
SECONDS=0
: "$BASH"
