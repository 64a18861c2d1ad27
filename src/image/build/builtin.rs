//! Recipes that fumehood brings: those of rootfs/.

use super::{BuildError, Recipe, Result};

#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! recipes {
    ($($name:literal)*) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("../../../rootfs/", $name, ".toml")) }),*]
    };
}

pub const ALL: &[Builtin] =
    recipes!["agent" "bash" "bun" "c" "deno" "go" "java" "node" "python" "python-data" "ruby" "rust"];

impl Builtin {
    pub fn find(name: &str) -> Result<Self> {
        let found = ALL.iter().find(|builtin| builtin.name == name).copied();
        found.ok_or_else(|| BuildError::Unknown {
            name: name.to_owned(),
            nearest: ALL
                .iter()
                .map(|builtin| (strsim::osa_distance(name, builtin.name), builtin.name))
                .filter(|(distance, known)| *distance <= 2 && *distance < known.len())
                .min()
                .map(|(_, known)| known.to_owned()),
            names: ALL.iter().map(|builtin| builtin.name.to_owned()).collect(),
        })
    }

    pub fn recipe(&self) -> Result<Recipe> {
        Ok(Recipe::parse(self.text, &format!("{}.toml", self.name))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_recipes_of_their_own_name() {
        for builtin in ALL {
            let recipe = builtin.recipe().unwrap();
            let name = recipe.name.unwrap().0;
            assert_eq!(name.to_string(), format!("docker.io/fumehood/{}:latest", builtin.name));
            assert!(recipe.description.is_some_and(|text| !text.is_empty()));
        }
        assert!(
            matches!(Builtin::find("bahs"), Err(BuildError::Unknown { nearest: Some(name), .. }) if name == "bash")
        );
    }
}
