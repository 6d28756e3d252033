//! `quorate completions`: what a shell has to know to complete the command line.
//!
//! The rule: it is made of the command line itself, so it names what there is.

use std::io::{self, Write};

use clap_complete::Shell;

use crate::{
    command_line::command_line,
    failure::{Failure, failed},
};

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate completions bash > ~/.local/share/bash-completion/completions/quorate  # for the next shell
  quorate completions zsh > ~/.zfunc/_quorate                                    # if ~/.zfunc is in $fpath
  quorate completions fish > ~/.config/fish/completions/quorate.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "quorate", &mut text);
    io::stdout().write_all(&text).map_err(|error| failed(format!("cannot print: {error}")))
}
