# Read by bash when it starts, in a sandbox that is made ahead: waits for its job, and leaves nothing of itself.
unset BASH_ENV FUMEHOOD_PRELOAD
if [ "$FUMEHOOD_BOOT" = 0 ]; then printf '\n'; else printf '\n' >&"$FUMEHOOD_BOOT"; fi
IFS= read -r -N 10 -u "$FUMEHOOD_BOOT" FUMEHOOD_COUNT || exit 1
IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_COUNT || exit 1
IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_MORE || exit 1
set --
while [ "$FUMEHOOD_COUNT" -gt 0 ] && IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_WORD; do
    set -- "$@" "$FUMEHOOD_WORD"
    FUMEHOOD_COUNT=$((FUMEHOOD_COUNT - 1))
done
while [ "$FUMEHOOD_MORE" -gt 0 ] && IFS= read -r -d '' -u "$FUMEHOOD_BOOT" FUMEHOOD_WORD; do
    export "${FUMEHOOD_WORD?}"
    FUMEHOOD_MORE=$((FUMEHOOD_MORE - 1))
done
if [ "$FUMEHOOD_BOOT" != 0 ]; then exec {FUMEHOOD_BOOT}<&-; fi
unset FUMEHOOD_BOOT FUMEHOOD_COUNT FUMEHOOD_MORE FUMEHOOD_WORD
SECONDS=0
: "$BASH"
