# Completion of acclimate for bash: eval "$$(acclimate completion bash)"
_acclimate() {
    local current=$${COMP_WORDS[COMP_CWORD]} before=$${COMP_WORDS[COMP_CWORD-1]} command=$${COMP_WORDS[1]}
    local key="" found=()
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($$(compgen -W "$commands --help --version" -- "$$current"))
        return
    fi
    # To bash "=" is a word of its own.
    if [[ $$current == "=" ]]; then
        key=$$before=
        current=""
    elif [[ $$before == "=" ]]; then
        key=$${COMP_WORDS[COMP_CWORD-2]}=
    fi
    if [[ -n $$key ]]; then
        case $$key in
$meanings
        esac
    elif [[ $$current == -* ]]; then
        case $$command in
$options
        esac
    elif [[ $$before == --* ]] && _acclimate_takes_value "$$command" "$$before"; then
        :
    else
        case $$command in
$others
        esac
        case $$command in
            $recipes) found+=($names);;
        esac
        case $$command in
            $overridden) found+=($$(_acclimate_keys "$$current"));;
        esac
    fi
    COMPREPLY=($$(compgen -W "$${found[*]}" -- "$$current"))
    if [[ $${COMPREPLY[0]} == *[=.] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}

# Whether an option takes a value; sets `found` to those that it can have.
_acclimate_takes_value() {
    case $$1:$$2 in
$values
        *) return 1;;
    esac
}

# The sections of a recipe, and the keys of the one that is written out.
_acclimate_keys() {
    local key
    for key in $keys; do
        if [[ $$key == *.* && $$1 != *.* ]]; then
            echo "$${key%%.*}."
        else
            echo "$$key"
        fi
    done | sort -u
}

complete -o bashdefault -o default -F _acclimate acclimate
