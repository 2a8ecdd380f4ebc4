# Functions, arithmetic and patterns, so many times. For any POSIX shell.
step() {
    case $1 in
        *7) set -- "$1" odd "${1#?}" ;;
        *) set -- "$1" "${1%?}" ;;
    esac
    total=$((total + $# * $1 % 11))
}

total=0
i=0
while [ "$i" -lt "$1" ]; do
    step "$i"
    i=$((i + 1))
done
