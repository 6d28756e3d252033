//! Lists of CPUs as the kernel writes them: "0-3,8".

use std::ops::RangeInclusive;

/// The highest number of a CPU.
const CPU_MAX: usize = 4095;

/// The CPUs of such a list, in its order; or what is wrong with it.
///
/// # Errors
/// When it is no such list, or names a CPU twice.
pub fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let range = range(part.trim()).ok_or_else(|| {
            format!("must be numbers up to {CPU_MAX} and ranges of them, such as \"0-3,8\"; got \"{part}\"")
        })?;
        for cpu in range {
            if cpus.contains(&cpu) {
                return Err(format!("names CPU {cpu} twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

fn range(part: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |text: &str| text.parse().ok().filter(|&cpu| cpu <= CPU_MAX);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read_in_their_order() {
        for (text, wanted) in
            [("3", &[3][..]), ("0-3,8", &[0, 1, 2, 3, 8]), ("8, 0-1", &[8, 0, 1]), ("4095", &[4095]), ("5-5", &[5])]
        {
            assert_eq!(cpus(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, wanted) in [
            ("", "got \"\""),
            ("0,,1", "got \"\""),
            ("3-1", "got \"3-1\""),
            ("1-2-3", "got \"1-2-3\""),
            ("0-99999", "numbers up to 4095"),
            ("all", "such as \"0-3,8\""),
            ("0-3,2", "names CPU 2 twice"),
        ] {
            let error = cpus(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
