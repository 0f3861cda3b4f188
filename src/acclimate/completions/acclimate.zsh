#compdef acclimate
# Completion of acclimate for zsh: eval "$$(acclimate completion zsh)" after compinit
_acclimate() {
    local current=$$PREFIX before=$$words[CURRENT-1] command=$$words[2]
    local -a found
    if (( CURRENT == 2 )); then
        compadd -- $commands --help --version
        return
    fi
    if [[ $$current == *=* ]]; then
        case $${current%%=*}= in
$meanings
        esac
        compset -P '*='
        compadd -- $$found
        return
    fi
    if [[ $$current == -* ]]; then
        case $$command in
$options
        esac
        compadd -- $$found
        return
    fi
    if [[ $$before == --* ]]; then
        case $$command:$$before in
$values
            *) before="";;
        esac
        if [[ -n $$before ]]; then
            if (( $$#found )); then compadd -- $$found; else _files; fi
            return
        fi
    fi
    case $$command in
$others
    esac
    case $$command in
        $recipes) found+=($names);;
    esac
    compadd -- $$found
    case $$command in
        $overridden) compadd -S "" -- $keys;;
    esac
    _files
}
compdef _acclimate acclimate
